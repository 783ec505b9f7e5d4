SELECT a.name, f.flight FROM airlines a RIGHT JOIN flights f ON a.carrier = f.carrier
