SELECT carrier, flight, delay FROM flights WHERE delay > 15
UNION ALL
SELECT carrier, flight, delay FROM arrivals
