SELECT flight, upper(tag) AS tag FROM (SELECT flight, unnest(tags) AS tag FROM flights) t WHERE tag LIKE 'f%' OR tag IS NULL
