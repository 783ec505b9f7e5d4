SELECT flight, length(body) * 2 AS a, length(body) * 2 + 1 AS b, length(body) * 2 + 2 AS c FROM flights WHERE length(body) * 2 > 20
