SELECT a.name, f.flight FROM airlines a JOIN flights f ON a.carrier = f.carrier
