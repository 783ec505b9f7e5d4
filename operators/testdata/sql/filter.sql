SELECT * FROM flights WHERE delay > 15
