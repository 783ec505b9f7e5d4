-- no oracle: batch shows meta columns in *
SELECT f.*, _offset AS o FROM flights f WHERE flight = 2
