SELECT flight, carrier FROM flights WHERE carrier NOT IN (SELECT carrier FROM airlines WHERE founded < 1926)
