SELECT flight, unnest(tags) AS tag FROM flights
