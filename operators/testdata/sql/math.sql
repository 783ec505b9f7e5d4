SELECT flight, abs(delay) AS a, round(delay, 1) AS r, floor(delay / 7) AS f, ceil(delay) AS c, power(flight, 2) AS p, greatest(flight, 3) AS g, least(delay, 10) AS l FROM flights
