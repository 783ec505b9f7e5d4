-- no oracle: batch shows meta columns in *
SELECT *, _offset AS o FROM (SELECT flight, _offset FROM flights) f
