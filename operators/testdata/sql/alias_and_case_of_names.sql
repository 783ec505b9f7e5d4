SELECT F.Flight AS "Flight No", CARRIER FROM flights AS F WHERE f.FLIGHT = 1
