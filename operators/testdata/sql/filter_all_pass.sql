SELECT flight, carrier FROM flights WHERE flight > 0
