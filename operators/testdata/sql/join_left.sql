SELECT f.flight, f.carrier, a.name, a.founded FROM flights f LEFT JOIN airlines a ON a.carrier = f.carrier
