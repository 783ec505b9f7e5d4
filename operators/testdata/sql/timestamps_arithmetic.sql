SELECT flight, scheduled + INTERVAL '90 minutes' AS later, scheduled - INTERVAL '1 day' AS before, day + INTERVAL '1 month' AS next_month FROM flights
