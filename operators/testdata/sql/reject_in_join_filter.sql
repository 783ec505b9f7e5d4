-- no oracle: batch fails as a whole
SELECT f.flight, a.name FROM flights f JOIN airlines a ON a.carrier = f.carrier AND 2000 / f.seats > a.founded - 2000
