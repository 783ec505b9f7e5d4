SELECT * REPLACE (upper(carrier) AS carrier) FROM arrivals
