SELECT f.flight, p.tail FROM flights f JOIN planes p ON f.seats / 90 = p.engines WHERE f.seats > 0
