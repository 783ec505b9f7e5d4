SELECT carrier FROM flights
