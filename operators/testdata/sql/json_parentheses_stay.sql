SELECT flight, body->>('ga' || 'te') AS gate FROM flights WHERE flight < 4
