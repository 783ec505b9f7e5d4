SELECT f.flight, a.name FROM flights f JOIN airlines a ON lower(a.carrier) = lower(f.carrier) WHERE a.founded = 1926
