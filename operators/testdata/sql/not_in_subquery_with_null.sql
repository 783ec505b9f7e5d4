SELECT flight FROM flights WHERE carrier NOT IN (SELECT carrier FROM airlines)
