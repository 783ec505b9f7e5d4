SELECT f.flight, p.engines FROM flights f JOIN planes p ON p.tail = f.plane['tail'] AND p.carrier = f.carrier
