SELECT flight, CASE WHEN seats <> 0 THEN 1000 / seats END AS per_seat FROM flights
