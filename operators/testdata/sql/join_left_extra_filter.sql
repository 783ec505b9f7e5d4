SELECT f.flight, a.name FROM flights f LEFT JOIN airlines a ON a.carrier = f.carrier AND a.founded < 2000 AND f.delay > a.founded - 1920
