-- fails: 3:59+8: a part of the query reads no stream, so nothing would make it run
--  hint: UNION ALL takes streams; a static table is joined to one
SELECT carrier FROM flights UNION ALL SELECT carrier FROM airlines
