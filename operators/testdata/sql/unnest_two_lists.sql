SELECT flight, unnest(tags) AS tag, unnest(legs) AS leg FROM flights
