WITH flights AS (SELECT flight FROM flights WHERE delay > 15) SELECT flight + 1 AS n FROM flights
