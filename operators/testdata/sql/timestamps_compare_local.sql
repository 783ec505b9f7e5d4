SELECT flight, local FROM flights WHERE local > TIMESTAMP '2013-01-01 01:15:30'
