SELECT flight, regexp_replace(body, '[0-9]+', '#') AS masked, regexp_like(body, 'crew') AS has_crew FROM flights
