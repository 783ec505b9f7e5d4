SELECT flight FROM flights f WHERE NOT EXISTS (SELECT 1 FROM airlines a WHERE a.carrier = f.carrier)
