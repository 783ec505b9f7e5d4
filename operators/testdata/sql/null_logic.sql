SELECT flight, carrier IS NULL AS missing, coalesce(carrier, '?') AS known, nullif(carrier, 'AA') AS other, delay IS NOT DISTINCT FROM NULL AS no_delay, cancelled IS TRUE AS gone FROM flights
