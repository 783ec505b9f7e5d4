SELECT f.flight, t.x FROM flights f JOIN (SELECT carrier, name AS x FROM airlines UNION ALL SELECT carrier, tail FROM planes) t ON t.carrier = f.carrier
