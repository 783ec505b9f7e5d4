-- no oracle: batch fails as a whole
SELECT flight, 10 / length(tag) AS n, CAST(tag AS INT) AS t FROM (SELECT flight, unnest(tags) AS tag FROM flights WHERE flight IN (3, 4, 5)) t
