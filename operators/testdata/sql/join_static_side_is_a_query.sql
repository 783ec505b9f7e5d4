SELECT f.flight, t.label FROM flights f JOIN (SELECT carrier AS c, upper(name) || '!' AS label FROM airlines WHERE founded < 1990) t ON t.c = f.carrier
