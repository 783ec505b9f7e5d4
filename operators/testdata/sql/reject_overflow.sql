-- no oracle: batch fails as a whole
SELECT flight, CAST(flight * 40 AS TINYINT) AS small FROM flights
