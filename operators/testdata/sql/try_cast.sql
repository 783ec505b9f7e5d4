SELECT flight, TRY_CAST(body AS INT) AS maybe, TRY_CAST('7' AS INT) AS seven FROM flights
