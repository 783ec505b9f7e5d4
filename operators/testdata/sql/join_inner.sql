SELECT f.flight, a.name FROM flights f JOIN airlines a ON a.carrier = f.carrier
