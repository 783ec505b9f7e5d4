-- no oracle: batch fails as a whole
SELECT flight FROM flights WHERE 1000 / seats > 6
