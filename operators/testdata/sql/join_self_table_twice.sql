SELECT f.flight, a.name, b.founded FROM flights f LEFT JOIN airlines a ON a.carrier = f.carrier AND a.founded < 2000 LEFT JOIN airlines b ON b.carrier = f.carrier AND b.founded > 2000
