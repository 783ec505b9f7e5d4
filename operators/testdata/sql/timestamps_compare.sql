SELECT flight, scheduled FROM flights WHERE scheduled >= TIMESTAMP '2013-01-01 06:00:00' AND scheduled < '2013-02-01'
