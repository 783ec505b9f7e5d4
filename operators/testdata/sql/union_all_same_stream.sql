SELECT flight, 'late' AS what FROM flights WHERE delay > 15
UNION ALL
SELECT flight, 'cancelled' FROM flights WHERE cancelled
