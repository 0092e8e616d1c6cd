"""The pages for people: server-rendered, whole without JavaScript, better with a little of ours."""
