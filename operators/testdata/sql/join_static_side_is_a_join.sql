SELECT f.flight, t.name, t.engines FROM flights f JOIN (SELECT p.tail, p.engines, a.name FROM planes p JOIN airlines a ON a.carrier = p.carrier) t ON t.tail = f.plane['tail']
