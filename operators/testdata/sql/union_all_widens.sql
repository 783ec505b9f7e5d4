SELECT flight AS n FROM flights
UNION ALL
SELECT delay FROM arrivals
UNION ALL
SELECT seats FROM flights
