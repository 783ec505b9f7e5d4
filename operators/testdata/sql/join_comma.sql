SELECT f.flight, a.name FROM flights f, airlines a WHERE f.carrier = a.carrier AND a.founded > 1990
