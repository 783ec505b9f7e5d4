SELECT f.flight, v.label FROM flights f JOIN (VALUES ('AA', 'one'), ('UA', 'two')) AS v(code, label) ON v.code = f.carrier
