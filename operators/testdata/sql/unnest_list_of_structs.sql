SELECT flight, leg['to'] AS dest, leg['minutes'] AS minutes FROM (SELECT flight, unnest(legs) AS leg FROM flights) t
