SELECT 1 AS one, 'a' AS letter FROM flights
