SELECT f.flight, a.name, p.engines FROM flights f LEFT JOIN airlines a ON a.carrier = f.carrier AND a.founded < 2000 LEFT JOIN planes p ON p.tail = f.plane['tail']
