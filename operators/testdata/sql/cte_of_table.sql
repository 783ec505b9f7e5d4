WITH old AS (SELECT * FROM airlines WHERE founded < 1990) SELECT f.flight, old.name FROM flights f JOIN old ON old.carrier = f.carrier
