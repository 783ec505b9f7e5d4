-- no oracle: batch fails as a whole
SELECT flight, CAST(body AS INT) AS n FROM flights WHERE flight <> 5
